create table if not exists runs (at timestamptz default now()); insert into runs default values;
