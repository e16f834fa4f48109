"""Plans for people and programs: changed fields, effects, summary, text and JSON."""
