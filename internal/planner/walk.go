package planner

import (
	"google.golang.org/protobuf/proto"
	"google.golang.org/protobuf/reflect/protoreflect"

	pg "github.com/pganalyze/pg_query_go/v6"
)

// walk visits every message below m, m itself first, in no promised order. visit
// says whether to go on below the message.
func walk(m proto.Message, visit func(proto.Message) bool) {
	if m == nil {
		return
	}
	walkReflect(m.ProtoReflect(), visit)
}

func walkReflect(r protoreflect.Message, visit func(proto.Message) bool) {
	if !r.IsValid() {
		return
	}
	if m := r.Interface(); !isNode(m) && !visit(m) {
		return
	}
	r.Range(func(fd protoreflect.FieldDescriptor, v protoreflect.Value) bool {
		if fd.Kind() != protoreflect.MessageKind {
			return true
		}
		if fd.IsList() {
			list := v.List()
			for i := range list.Len() {
				walkReflect(list.Get(i).Message(), visit)
			}
			return true
		}
		walkReflect(v.Message(), visit)
		return true
	})
}

// isNode says whether m is only the wrapper of a node.
func isNode(m proto.Message) bool {
	_, ok := m.(*pg.Node)
	return ok
}
