"""Problems in plans: objects of the engine that can't serve for a document."""
