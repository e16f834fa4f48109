"""The broker's connection to the engine: requests, responses, relayed streams, shared pulls."""
