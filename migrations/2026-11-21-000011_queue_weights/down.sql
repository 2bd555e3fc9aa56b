ALTER TABLE queue_settings DROP COLUMN weight;
