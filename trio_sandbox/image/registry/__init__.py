"""Images in registries: what a reference means there, and its blobs.

reference     names of images, by Docker's grammar
settings      registries.toml: plain http, certificates, mirrors, time limits
credentials   who we are to a registry: what the caller gave, Docker's config file, its credential helpers
access        the three above for one image: RegistryAccess
client        one registry by HTTP, on oras: redirects, tokens, typed failures; blocking
calls         blocking calls from Trio, which end at once when they are cancelled
retry         which failures pass, and how long to wait for that
resolve       from a reference to an image with all its documents checked
fetch         one blob into a file, going on where an earlier try stopped
"""
