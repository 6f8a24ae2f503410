package router

import (
	"github.com/sharding-system/sharding/internal/exec"
)

// How pipelines end, and what is left of those that fail.

func (s *session) pipelineFailed(err error) error {
	if err == nil || exec.Fatal(err) {
		return err
	}
	s.broken = true
	// What was answered before comes first.
	e := error(nil)
	if err != exec.ErrReported {
		e = s.payOwed(-1)
	}
	for _, st := range s.owed { // never sent
		if s.stmts[st.Name] == st {
			delete(s.stmts, st.Name)
		}
	}
	s.owed = s.owed[:0]
	if e == nil {
		e = s.x.ExtFlush()
	}
	if e != nil {
		if exec.Fatal(e) {
			return e
		}
		err = e // it came first
	}
	s.x.Fail()
	s.fail(err)
	return nil
}

// Undo takes back what messages have made or closed that came to nothing: of a
// pipeline that failed, what came behind the error.
func (s *session) Undo(made, gone exec.Made) {
	if st := made.Stmt; st != nil && s.stmts[st.Name] == st {
		delete(s.stmts, st.Name)
	}
	switch po := made.Portal; {
	case po == nil:
	case po == &s.unnamed:
		po.Stmt = nil
	case s.portals[po.Name] == po:
		delete(s.portals, po.Name)
	}
	if st := gone.Stmt; st != nil {
		s.stmts[st.Name] = st
	}
	if po := gone.Portal; po != nil && po != &s.unnamed {
		s.portals[po.Name] = po
	}
}

// flushPipeline is Flush: everything that is due goes to the client.
func (s *session) flushPipeline() error {
	if err := s.payOwed(-1); err != nil {
		return s.pipelineFailed(err)
	}
	if err := s.x.ExtFlush(); err != nil {
		return s.pipelineFailed(err)
	}
	return nil
}

// endPipeline is a Sync's work without its ReadyForQuery, for a message that ends a
// flushed pipeline and has an answer of its own. told: that answer is the pipeline's
// error, which the client has, and the message must not run.
func (s *session) endPipeline() (told bool, err error) {
	failed := func(err error) error {
		if err == nil || exec.Fatal(err) {
			return err
		}
		told = true
		s.fail(err)
		return nil
	}
	err = s.x.CloseUnits()
	s.broken = s.broken || err != nil
	if err := failed(err); err != nil {
		return told, err
	}
	if err := failed(s.x.EndImplicit(s.broken)); err != nil {
		return told, err
	}
	if err := s.settleDDL(); err != nil {
		told = true
		s.fail(err)
	}
	if told {
		s.broken = false
		s.ready()
	}
	return told, nil
}

// sync ends a pipeline.
func (s *session) sync() error {
	if !s.broken && len(s.owed) > 0 {
		if err := s.payOwed(-1); err != nil {
			if err := s.pipelineFailed(err); err != nil {
				return err
			}
		}
	}
	if !s.broken && s.x.Opening() {
		if err := s.flushPipeline(); err != nil {
			return err
		}
	}
	failed := s.broken
	s.broken = false
	if failed && !s.x.InBlock() {
		s.takeBack(s.ddl.start)
	}
	ready, err := s.x.ExtSync(failed)
	s.x.Alone = false
	s.dropUnparsed()
	if err != nil {
		if exec.Fatal(err) {
			return err
		}
		s.fail(err)
	}
	if !s.x.InBlock() {
		if e := s.settleDDL(); e != nil {
			s.fail(e)
		}
		clear(s.portals)
		s.unnamed.Stmt = nil
	}
	if !ready {
		s.ready()
	}
	return nil
}

// dropUnparsed forgets the statements that no shard would parse, or did not look at
// since something before them failed: their names are free.
func (s *session) dropUnparsed() {
	for i, st := range s.x.Unparsed {
		if s.stmts[st.Name] == st {
			delete(s.stmts, st.Name)
		}
		s.x.Unparsed[i] = nil
	}
	s.x.Unparsed = s.x.Unparsed[:0]
}

// dropUnnamed forgets the unnamed statement and portal, as a simple Query does.
func (s *session) dropUnnamed() {
	if len(s.stmts) > 0 {
		delete(s.stmts, "")
	}
	s.unnamed.Stmt = nil
}
