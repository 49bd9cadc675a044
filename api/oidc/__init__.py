"""Sign-in with JSON Web Tokens of OpenID Connect providers."""
