"""The record schema, its versions and the store."""
