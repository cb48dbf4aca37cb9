"""A repository with odd names in it, and a diff that applies there: for the tests of `qigheal.repo`."""

from __future__ import annotations

FILES = {
    "app/model.py": "def f(x):\n    return x + 1\n",
    "app/naïve file.py": "y = 2\n",
    "config/app.toml": "[a]\nb = 1\n",
    "-dash": "first\n",
}
GOOD = """\
diff --git a/app/model.py b/app/model.py
--- a/app/model.py
+++ b/app/model.py
@@ -1,2 +1,2 @@
 def f(x):
-    return x + 1
+    return x + 2
"""
