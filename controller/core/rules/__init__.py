"""The rules of admission: a function for each rule, from a request with its facts to findings."""
