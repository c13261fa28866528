"""Collections and scenarios: which images there are, what is known of them, and their pixels."""
