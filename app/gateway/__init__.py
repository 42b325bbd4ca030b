"""One request from the caller to a settled record: the only place where the packages meet."""
