package schema

const nameBytesMax = 63

type position struct{ line, column int }
