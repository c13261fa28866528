"""What a report says: values, before any format."""
