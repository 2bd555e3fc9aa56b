//! The database as the migrations leave it; a test compares the two.

/// SQL types that Diesel does not know.
pub mod sql_types {
    #[derive(diesel::query_builder::QueryId, diesel::sql_types::SqlType)]
    #[diesel(postgres_type(name = "tsvector", schema = "pg_catalog"))]
    pub struct Tsvector;
}

diesel::table! {
    use diesel::sql_types::*;

    api_keys (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        user_id -> Uuid,
        name -> Text,
        secret_hash -> Bytea,
        hint -> Text,
        scopes -> Array<Text>,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
        last_used_at -> Nullable<Timestamptz>,
        revoked_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    audit_log (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        at -> Timestamptz,
        actor_kind -> Text,
        actor_id -> Nullable<Uuid>,
        action -> Text,
        entity_kind -> Text,
        entity_id -> Nullable<Uuid>,
        details -> Jsonb,
        request_id -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    backups (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        state -> Text,
        phase -> Text,
        requested_by -> Nullable<Uuid>,
        started_at -> Timestamptz,
        updated_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        verified_at -> Nullable<Timestamptz>,
        pruned_at -> Nullable<Timestamptz>,
        done_bytes -> Int8,
        expected_bytes -> Nullable<Int8>,
        plain_bytes -> Nullable<Int8>,
        stored_bytes -> Nullable<Int8>,
        table_count -> Nullable<Int4>,
        row_count -> Nullable<Int8>,
        file_count -> Nullable<Int8>,
        file_bytes -> Nullable<Int8>,
        encrypted -> Bool,
        dump_seconds -> Nullable<Float8>,
        schema_version -> Nullable<Text>,
        server_version -> Nullable<Text>,
        program_version -> Text,
        places -> Array<Text>,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    business_domains (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        key -> Text,
        name -> Text,
        description -> Text,
        owner_team -> Nullable<Text>,
        stakeholders -> Array<Text>,
        industry -> Nullable<Text>,
        priority -> Nullable<Text>,
        objective_keys -> Array<Text>,
        key_metric_keys -> Array<Text>,
        extra -> Jsonb,
        implied -> Bool,
        revision -> Int4,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
        archived_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    documents (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        document_id -> Text,
        sha256 -> Bytea,
        name -> Text,
        version -> Int4,
        text -> Text,
        published_by -> Nullable<Uuid>,
        published_at -> Timestamptz,
        withdrawn_at -> Nullable<Timestamptz>,
        use_count -> Int8,
        last_used_at -> Nullable<Timestamptz>,
        cache_seconds -> Nullable<Int4>,
        public -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    event_streams (tenant_id) {
        tenant_id -> Uuid,
        last_sequence -> Int8,
        kept_from -> Int8,
        updated_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    idempotency_keys (tenant_id, actor_id, key) {
        tenant_id -> Uuid,
        actor_id -> Uuid,
        key -> Text,
        request_hash -> Bytea,
        response -> Nullable<Jsonb>,
        created_at -> Timestamptz,
        locked_until -> Timestamptz,
        wrote -> Bool,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    import_changes (tenant_id, import_id, ordinal) {
        tenant_id -> Uuid,
        import_id -> Uuid,
        ordinal -> Int8,
        action -> Text,
        entity_kind -> Text,
        entity_key -> Text,
        fields -> Jsonb,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    import_issues (tenant_id, import_id, ordinal) {
        tenant_id -> Uuid,
        import_id -> Uuid,
        ordinal -> Int8,
        severity -> Text,
        line -> Nullable<Int8>,
        path -> Nullable<Text>,
        entity_kind -> Nullable<Text>,
        entity_key -> Nullable<Text>,
        field -> Nullable<Text>,
        code -> Text,
        message -> Text,
        raw_value -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    imports (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        job_id -> Nullable<Uuid>,
        state -> Text,
        format -> Nullable<Text>,
        mode -> Text,
        dry_run -> Bool,
        file_name -> Nullable<Text>,
        namespace -> Nullable<Text>,
        message -> Nullable<Text>,
        storage_key -> Text,
        content_bytes -> Int8,
        content_sha256 -> Bytea,
        bytes_read -> Int8,
        rows_total -> Nullable<Int8>,
        rows_done -> Int8,
        created_count -> Int8,
        updated_count -> Int8,
        unchanged_count -> Int8,
        failed_count -> Int8,
        warning_count -> Int8,
        error -> Nullable<Text>,
        requested_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        started_at -> Nullable<Timestamptz>,
        updated_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        cancel_requested_at -> Nullable<Timestamptz>,
        given_up -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    job_attempts (tenant_id, job_id, lease_token) {
        tenant_id -> Uuid,
        job_id -> Uuid,
        lease_token -> Int8,
        number -> Int4,
        worker -> Nullable<Text>,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Timestamptz,
        outcome -> Text,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    jobs (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        queue -> Text,
        kind -> Text,
        payload -> Jsonb,
        state -> Text,
        priority -> Int2,
        run_at -> Timestamptz,
        unique_key -> Nullable<Text>,
        attempt -> Int4,
        max_attempts -> Int4,
        lease_token -> Int8,
        lease_until -> Nullable<Timestamptz>,
        worker -> Nullable<Text>,
        cancel_requested_at -> Nullable<Timestamptz>,
        last_error -> Nullable<Text>,
        trace_context -> Jsonb,
        enqueued_by -> Nullable<Uuid>,
        created_at -> Timestamptz,
        dispatched_at -> Nullable<Timestamptz>,
        started_at -> Nullable<Timestamptz>,
        finished_at -> Nullable<Timestamptz>,
        turn -> Int8,
        unique_until -> Nullable<Timestamptz>,
        batch_id -> Nullable<Uuid>,
        waits_for -> Nullable<Uuid>,
        progress_done -> Nullable<Int8>,
        progress_total -> Nullable<Int8>,
        progress_message -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    key_result_metrics (tenant_id, key_result_id, metric_key) {
        tenant_id -> Uuid,
        key_result_id -> Uuid,
        metric_key -> Text,
        position -> Int4,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    key_results (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        objective_id -> Uuid,
        key -> Text,
        name -> Text,
        description -> Text,
        unit -> Nullable<Text>,
        direction -> Text,
        baseline_value -> Nullable<Float8>,
        target_value -> Nullable<Float8>,
        current_value -> Nullable<Float8>,
        extra -> Jsonb,
        position -> Int4,
        revision -> Int4,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
        archived_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    memberships (tenant_id, user_id) {
        tenant_id -> Uuid,
        user_id -> Uuid,
        role -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        suspended_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    metric_edges (tenant_id, declared_by, upstream_key, downstream_key) {
        tenant_id -> Uuid,
        declared_by -> Uuid,
        upstream_key -> Text,
        downstream_key -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    metric_versions (tenant_id, metric_id, revision) {
        tenant_id -> Uuid,
        metric_id -> Uuid,
        revision -> Int4,
        version_major -> Int4,
        version_minor -> Int4,
        version_patch -> Int4,
        change_tier -> Text,
        changed_fields -> Array<Text>,
        message -> Nullable<Text>,
        document -> Jsonb,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
    }
}

diesel::table! {
    use diesel::sql_types::*;
    use super::sql_types::Tsvector;

    metrics (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        key -> Text,
        name -> Text,
        short_name -> Nullable<Text>,
        description -> Text,
        category -> Nullable<Text>,
        tier -> Nullable<Text>,
        domain_id -> Nullable<Uuid>,
        indicator_kind -> Nullable<Text>,
        metric_type -> Text,
        status -> Text,
        tags -> Array<Text>,
        synonyms -> Array<Text>,
        formula -> Nullable<Text>,
        unit -> Nullable<Text>,
        expected_direction -> Nullable<Text>,
        owner_team -> Nullable<Text>,
        technical_owner -> Nullable<Text>,
        business_owner -> Nullable<Text>,
        data_classification -> Nullable<Text>,
        pii_involved -> Bool,
        details -> Jsonb,
        version_major -> Int4,
        version_minor -> Int4,
        version_patch -> Int4,
        revision -> Int4,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
        archived_at -> Nullable<Timestamptz>,
        search -> Tsvector,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    objectives (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        key -> Text,
        name -> Text,
        description -> Text,
        owner -> Nullable<Text>,
        status -> Text,
        priority -> Nullable<Text>,
        pillar -> Nullable<Text>,
        starts_on -> Nullable<Date>,
        ends_on -> Nullable<Date>,
        domain_id -> Nullable<Uuid>,
        metric_keys -> Array<Text>,
        extra -> Jsonb,
        revision -> Int4,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
        archived_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    outbox (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        kind -> Text,
        subject_id -> Nullable<Uuid>,
        payload -> Jsonb,
        actor_id -> Nullable<Uuid>,
        trace_context -> Jsonb,
        created_at -> Timestamptz,
        sequence -> Nullable<Int8>,
        published_at -> Nullable<Timestamptz>,
        version -> Int2,
        transaction_id -> Int8,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    outbox_commits (tenant_id, transaction_id) {
        tenant_id -> Uuid,
        transaction_id -> Int8,
        position -> Nullable<Int8>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    queue_settings (tenant_id, queue) {
        tenant_id -> Uuid,
        queue -> Text,
        paused_at -> Nullable<Timestamptz>,
        concurrency -> Nullable<Int4>,
        updated_at -> Timestamptz,
        weight -> Int4,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    refresh_tokens (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        session_id -> Uuid,
        secret_hash -> Bytea,
        issued_at -> Timestamptz,
        used_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    restore_drills (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        backup_id -> Uuid,
        place -> Text,
        state -> Text,
        phase -> Text,
        requested_by -> Nullable<Uuid>,
        started_at -> Timestamptz,
        updated_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
        done_bytes -> Int8,
        expected_bytes -> Nullable<Int8>,
        restore_seconds -> Nullable<Float8>,
        differences -> Array<Text>,
        error -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    schedule_slots (tenant_id, schedule, slot) {
        tenant_id -> Uuid,
        schedule -> Text,
        slot -> Timestamptz,
        outcome -> Text,
        job_id -> Nullable<Uuid>,
        fired_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    schedules (tenant_id, name) {
        tenant_id -> Uuid,
        name -> Text,
        description -> Text,
        expression -> Text,
        time_zone -> Text,
        overlap -> Text,
        catch_up -> Text,
        enabled -> Bool,
        queue -> Text,
        kind -> Text,
        payload -> Jsonb,
        max_attempts -> Int4,
        since -> Timestamptz,
        paused_at -> Nullable<Timestamptz>,
        declared_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    sessions (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        user_id -> Uuid,
        created_at -> Timestamptz,
        expires_at -> Timestamptz,
        revoked_at -> Nullable<Timestamptz>,
        revoked_reason -> Nullable<Text>,
        user_agent -> Nullable<Text>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    tenants (id) {
        id -> Uuid,
        slug -> Text,
        name -> Text,
        created_at -> Timestamptz,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    users (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        email -> Text,
        name -> Text,
        password_hash -> Text,
        created_at -> Timestamptz,
        updated_at -> Timestamptz,
        last_signed_in_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    webhook_attempts (tenant_id, delivery_id, attempt) {
        tenant_id -> Uuid,
        delivery_id -> Uuid,
        attempt -> Int4,
        endpoint_id -> Uuid,
        at -> Timestamptz,
        duration_ms -> Int4,
        status -> Nullable<Int4>,
        error_class -> Nullable<Text>,
        error -> Nullable<Text>,
        response -> Text,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    webhook_deliveries (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        endpoint_id -> Uuid,
        event_id -> Uuid,
        sequence -> Nullable<Int8>,
        kind -> Text,
        payload -> Jsonb,
        occurred_at -> Timestamptz,
        origin -> Text,
        replay_of -> Nullable<Uuid>,
        state -> Text,
        attempt -> Int4,
        next_attempt_at -> Timestamptz,
        trace_context -> Jsonb,
        created_at -> Timestamptz,
        finished_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    webhook_endpoints (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        url -> Text,
        description -> Text,
        event_kinds -> Array<Text>,
        filter -> Jsonb,
        headers -> Jsonb,
        rate_limit -> Nullable<Int4>,
        payload_version -> Int4,
        enabled -> Bool,
        disabled_reason -> Nullable<Text>,
        failing_since -> Nullable<Timestamptz>,
        not_before -> Nullable<Timestamptz>,
        revision -> Int4,
        created_at -> Timestamptz,
        created_by -> Nullable<Uuid>,
        updated_at -> Timestamptz,
        updated_by -> Nullable<Uuid>,
        last_failed_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    webhook_secrets (tenant_id, id) {
        tenant_id -> Uuid,
        id -> Uuid,
        endpoint_id -> Uuid,
        sealed -> Bytea,
        created_at -> Timestamptz,
        expires_at -> Nullable<Timestamptz>,
    }
}

diesel::table! {
    use diesel::sql_types::*;

    workers (tenant_id, name) {
        tenant_id -> Uuid,
        name -> Text,
        host -> Text,
        pid -> Int8,
        version -> Text,
        queues -> Array<Text>,
        running -> Int4,
        memory_bytes -> Nullable<Int8>,
        started_at -> Timestamptz,
        last_seen_at -> Timestamptz,
        stopped_at -> Nullable<Timestamptz>,
    }
}

diesel::allow_tables_to_appear_in_same_query!(
    api_keys,
    audit_log,
    backups,
    business_domains,
    documents,
    event_streams,
    idempotency_keys,
    import_changes,
    import_issues,
    imports,
    job_attempts,
    jobs,
    key_result_metrics,
    key_results,
    memberships,
    metric_edges,
    metric_versions,
    metrics,
    objectives,
    outbox,
    outbox_commits,
    queue_settings,
    refresh_tokens,
    restore_drills,
    schedule_slots,
    schedules,
    sessions,
    tenants,
    users,
    webhook_attempts,
    webhook_deliveries,
    webhook_endpoints,
    webhook_secrets,
    workers,
);
