DROP FUNCTION search_tagged_metrics(text, text[], boolean);
