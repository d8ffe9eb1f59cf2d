package pqc

import (
	"reflect"
	"unsafe"
)

// wipe overwrites all bytes and numbers that v leads to. It is for key types of
// other packages that have no such method. What their code copied to its stack
// stays until it is used again: Go has no way to reach that.
func wipe(v any) { wipeValue(reflect.ValueOf(v)) }

func wipeValue(v reflect.Value) {
	switch v.Kind() {
	case reflect.Pointer, reflect.Interface:
		if !v.IsNil() {
			wipeValue(v.Elem())
		}
	case reflect.Slice:
		if plain(v.Type().Elem()) {
			clear(unsafe.Slice((*byte)(v.UnsafePointer()), v.Len()*int(v.Type().Elem().Size())))
			return
		}
		for i := range v.Len() {
			wipeValue(v.Index(i))
		}
	case reflect.Struct:
		for i := range v.NumField() {
			wipeValue(v.Field(i))
		}
	default:
		if v.CanAddr() && plain(v.Type()) {
			clear(unsafe.Slice((*byte)(v.Addr().UnsafePointer()), v.Type().Size()))
		}
	}
}

// plain tells whether a type consists of numbers only.
func plain(t reflect.Type) bool {
	if t.Kind() == reflect.Array {
		return plain(t.Elem())
	}
	return t.Kind() >= reflect.Bool && t.Kind() <= reflect.Complex128
}
