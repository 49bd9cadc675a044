"""Code that every request passes: middleware, bodies, deadlines, parameters, problems."""
