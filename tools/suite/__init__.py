"""The suite of `make bench`: figures beside a bare floor and a peer, with intervals and goals."""
