"""The Docker Engine API's bodies: parse requests, build bodies, translate answers."""
