// fetcher asks for URLs, and prints what each answers and how long that is. What its grant does not allow, it is told.
import { HTTP, Status, args, print } from "wasmatrix/assembly";

const web = new HTTP("http");
const urls = args();
for (let n = 0; n < urls.length; n++) {
  const page = web.get(urls[n]);
  if (page.status == Status.PermissionDenied) {
    print(`denied: ${page.error}`);
  } else if (!page.ok) {
    print(`failed: ${page.error}`);
  } else {
    const body = page.value.text();
    if (body.ok) print(`${urls[n]} ${page.value.status} ${String.UTF8.byteLength(body.value)} bytes`);
    else print(`broke off: ${body.error}`);
    page.value.close();
  }
}
