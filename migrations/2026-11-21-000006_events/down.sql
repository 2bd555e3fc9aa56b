DROP TABLE event_streams;
DROP TRIGGER outbox_transaction ON outbox;
DROP FUNCTION note_outbox_transaction;
DROP TABLE outbox_commits;
DROP FUNCTION number_outbox_commit;
DROP SEQUENCE outbox_positions;
DROP INDEX outbox_unstamped_idx;
ALTER TABLE outbox
    DROP CONSTRAINT outbox_published_is_stamped,
    DROP CONSTRAINT outbox_sequence_key,
    DROP COLUMN transaction_id,
    DROP COLUMN version;
CREATE INDEX outbox_unpublished_idx ON outbox (id) WHERE published_at IS NULL;
