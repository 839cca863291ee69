"""MuseHub's CI runner, reduced to asking the app for jobs with RUNNER_TOKEN."""
import os
import signal
import ssl
import time
import urllib.error
import urllib.request

signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
context = ssl.create_default_context(cafile="/tls/localhost.crt")
# Inside the compose network the app is called musehub; its certificate is for localhost.
context.check_hostname = False
last = ""
while True:
    request = urllib.request.Request("https://musehub:1337/runner", method="POST", data=b"",
                                     headers={"Authorization": "Bearer " + os.environ.get("RUNNER_TOKEN", "")})
    try:
        with urllib.request.urlopen(request, timeout=3, context=context) as answer:
            now = f"the app answers {answer.status}"
    except urllib.error.HTTPError as error:
        now = f"the app answers {error.code}"
    except OSError as error:
        now = f"the app cannot be reached: {error}"
    if now != last:
        print(now)
        last = now
    time.sleep(0.5)
