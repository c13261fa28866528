"""EfficientAD (Batzner, Heckler, König, WACV 2024)."""
