"""Other people's languages: rules, LAYER_TYPES, custom-q, recipes, published sensitivities."""
