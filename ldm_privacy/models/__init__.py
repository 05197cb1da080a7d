"""Networks and how they are seen from above: codecs with their channel maps, denoisers, noise predictors."""
