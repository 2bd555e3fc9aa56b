ALTER TABLE imports DROP COLUMN given_up;
