"""everything that runs → one look that says whether all is well."""

from headrace.infra.console.site import Route, Site, redirect
from headrace.infra.serve.http import Request, Response


async def _all(site: Site, request: Request) -> Response:
    if len(site.names) == 1 and not request.query("all"):
        return redirect(f"/console/p/{next(iter(site.names))}")
    return site.page(request, "pipelines.html", title="Pipelines", watch=["board"])


async def _one(site: Site, request: Request, pipeline: str) -> Response:
    site.place(pipeline)
    return site.page(
        request,
        "overview.html",
        title=pipeline,
        pipeline=pipeline,
        tab="Overview",
        watch=[f"board:{pipeline}", f"versions:{pipeline}", f"runs:{pipeline}"],
    )


ROUTES = [Route("GET", "/pipelines", _all), Route("GET", "/p/{pipeline}", _one)]
