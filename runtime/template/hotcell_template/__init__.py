"""Builds the root file systems that sandboxes start from.

A *template* is a directory with a `template.toml`: Debian packages, pinned
Python wheels, a user, an environment, and the language kernel that runs in it.
Building one gives a *root*, named after the digest of what is in it:

    STORE/                      mode 0700: files inside belong to container ids
                                (0..65535) that are ordinary users on the host
      sha256-<64 hex>/
        root/                   the file tree, never changed after it is published
        manifest.json           what it is and how to start its kernel
        tree                    one record per file, what the digest was made from
      by-name/python         -> ../sha256-...
      by-input/<64 hex>      -> ../sha256-...   same inputs: nothing to build
      by-base/<64 hex>       -> ../sha256-...   same but for the kernel's own files

Modules: `spec` reads the inputs, `recipe` makes a root, `tree` takes its
digest, `store` keeps it, `build` is the order of things. `recipe` and `tree`
shape the result, so their text is part of what decides whether to build again.
"""
