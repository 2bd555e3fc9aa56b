ALTER INDEX metrics_find_idx RESET (gin_pending_list_limit);
