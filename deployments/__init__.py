"""From an HTTP request to a cited answer, as Ray Serve deployments."""
