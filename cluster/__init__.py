"""How the application is started, deployed and watched: locally and on Kubernetes."""
