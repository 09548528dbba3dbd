"""Boxlift's Label Studio side: routes, queueing, label mapping, delivery and the command line. No torch here."""
