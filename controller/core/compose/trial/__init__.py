"""What a project would gain and lose, and which services reach each other, before any change."""
