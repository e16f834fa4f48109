CREATE TABLE IF NOT EXISTS migrated (id int); INSERT INTO migrated VALUES (1);
