"""From a folder of code to what a Function refers to: the package archive, the dependency layer, the handler's place."""
