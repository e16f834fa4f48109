// The live updates of the pages.
