"""Whole data sets through the queue: from a Label Studio project, or from files into a file."""
