"""Documents of kind Job: checks of the document, of jobs with services, and cron schedules."""
