"""Other libraries on the same data, in environments of their own."""
