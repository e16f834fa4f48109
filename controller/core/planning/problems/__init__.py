"""Problems in plans: objects of the engine that can't serve as a document says."""
