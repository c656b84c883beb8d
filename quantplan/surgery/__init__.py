"""Layer surgery: edits as data, the files they make, the search over them and their scores."""
