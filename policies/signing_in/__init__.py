"""How people sign in: with a directory's password (LDAP), or at an identity provider (OpenID Connect, SAML)."""
