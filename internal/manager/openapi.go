package manager

import (
	"context"
	"encoding/json"
	"reflect"
	"strings"
	"time"
)

// openAPI writes the OpenAPI 3.1 document of the routes: made of the list that
// serves them and of the types that travel, so that it cannot differ.
func (s *Server) openAPI(context.Context, *call) (answer, error) {
	paths := map[string]map[string]any{}
	for _, r := range s.routes() {
		path := strings.ReplaceAll(r.pattern, "{$}", "")
		if paths[path] == nil {
			paths[path] = map[string]any{}
		}
		paths[path][strings.ToLower(r.method)] = r.operation()
	}
	return ok(map[string]any{
		"openapi": "3.1.0",
		"info":    map[string]any{"title": "Sharding System manager", "version": s.release},
		"paths":   paths,
		"components": map[string]any{
			"securitySchemes": map[string]any{"bearer": map[string]any{"type": "http", "scheme": "bearer", "bearerFormat": "JWT"}},
			"schemas":         map[string]any{"Error": errorSchema},
		},
	})
}

var errorSchema = map[string]any{
	"type": "object", "required": []string{"error"},
	"properties": map[string]any{"error": map[string]any{
		"type": "object", "required": []string{"code", "message", "request_id"},
		"properties": map[string]any{
			"code": text, "message": text, "detail": text, "hint": text, "request_id": text,
		},
	}},
}

var text = map[string]any{"type": "string"}

func (r route) operation() map[string]any {
	success := map[string]any{"description": "Done"}
	if r.reply != nil {
		success["content"] = jsonContent(schemaOf(reflect.TypeOf(r.reply)))
	}
	op := map[string]any{
		"summary": r.summary,
		"responses": map[string]any{
			statusText(r.status): success,
			"default":            map[string]any{"description": "Refused", "content": jsonContent(map[string]any{"$ref": "#/components/schemas/Error"})},
		},
	}
	if r.access != open {
		op["security"] = []any{map[string]any{"bearer": []string{}}}
		op["description"] = "For " + strings.Join(r.access.roles(), ", ") + "."
	}
	if r.request != nil {
		op["requestBody"] = map[string]any{"required": true, "content": jsonContent(schemaOf(reflect.TypeOf(r.request)))}
	}
	if params := r.parameters(); len(params) > 0 {
		op["parameters"] = params
	}
	return op
}

func (r route) parameters() []any {
	var params []any
	add := func(in, name string, required bool, schema map[string]any) {
		params = append(params, map[string]any{"in": in, "name": name, "required": required, "schema": schema})
	}
	for _, name := range r.pathParameters() {
		add("path", name, true, text)
	}
	if r.list {
		add("query", "limit", false, map[string]any{"type": "integer", "minimum": 1, "maximum": maxPage, "default": defaultPage})
		add("query", "cursor", false, text)
	}
	if r.access != open && r.method != "GET" {
		add("query", "dry_run", false, map[string]any{"type": "boolean"})
		add("header", "If-Match", false, text)
	}
	return params
}

func jsonContent(schema map[string]any) map[string]any {
	return map[string]any{"application/json": map[string]any{"schema": schema}}
}

var (
	timeType = reflect.TypeOf(time.Time{})
	rawType  = reflect.TypeOf(json.RawMessage{})
)

// schemaOf is the JSON schema of what encoding/json makes of a type. It knows
// the kinds that the API's types use.
func schemaOf(t reflect.Type) map[string]any {
	switch {
	case t == timeType:
		return map[string]any{"type": "string", "format": "date-time"}
	case t == rawType:
		return map[string]any{}
	}
	switch t.Kind() {
	case reflect.Pointer:
		return schemaOf(t.Elem())
	case reflect.String:
		return text
	case reflect.Bool:
		return map[string]any{"type": "boolean"}
	case reflect.Int, reflect.Int64:
		return map[string]any{"type": "integer"}
	case reflect.Float64:
		return map[string]any{"type": "number"}
	case reflect.Slice:
		return map[string]any{"type": "array", "items": schemaOf(t.Elem())}
	case reflect.Struct:
		return structSchema(t)
	}
	return map[string]any{}
}

func structSchema(t reflect.Type) map[string]any {
	properties := map[string]any{}
	required := []string{}
	for i := range t.NumField() {
		f := t.Field(i)
		name, options, _ := strings.Cut(f.Tag.Get("json"), ",")
		if name == "-" {
			continue
		}
		properties[name] = schemaOf(f.Type)
		if options != "omitempty" {
			required = append(required, name)
		}
	}
	return map[string]any{"type": "object", "properties": properties, "required": required}
}
