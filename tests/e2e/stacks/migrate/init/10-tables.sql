CREATE TABLE made_by_init (id int);
