"""One module a suite of `inforce bench`."""
