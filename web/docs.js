/** The API in Swagger UI, whose files the server serves from a package. */

// @ts-ignore the bundle defines it
const { SwaggerUIBundle } = window;

SwaggerUIBundle({
  url: "/openapi.json",
  dom_id: "#docs",
  deepLinking: true,
  displayRequestDuration: true,
  docExpansion: "list",
  // The default asks another host.
  validatorUrl: null,
});
