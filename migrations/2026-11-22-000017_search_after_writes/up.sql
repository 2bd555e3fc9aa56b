-- New entries wait in a list that every search reads from end to end, until it is this long (kB) or the table is vacuumed. At the default of
-- 4 MB, searches took more than twice as long after many writes; to keep it short costs a write next to nothing.
ALTER INDEX metrics_find_idx SET (gin_pending_list_limit = 256);
