"""Files for the schedulers that people have already: a job as a value in, texts out. Nothing here runs or waits."""
