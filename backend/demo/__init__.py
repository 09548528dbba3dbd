"""The whole product on one machine: what `boxlift demo` starts, and what the end-to-end tests start too."""
