package main

import (
	"bytes"
	"context"
	"errors"
	"fmt"
	"strings"
	"sync"
	"time"

	"gorm.io/driver/postgres"
	"gorm.io/gorm"
	"gorm.io/gorm/clause"
	"gorm.io/gorm/logger"
)

// The models. Customer and Order are sharded, Country is a reference table,
// Setting is global; Thing is sharded.
type Customer struct {
	ID      int64  `gorm:"primaryKey;autoIncrement:false"`
	Name    string `gorm:"not null"`
	Country string
	Orders  []Order `gorm:"foreignKey:CustomerID"`
}

type Order struct {
	CustomerID int64     `gorm:"primaryKey;autoIncrement:false"`
	ID         int64     `gorm:"primaryKey;autoIncrement:false"`
	Total      string    `gorm:"type:numeric(12,2)"`
	CreatedAt  time.Time `gorm:"index"`
}

type Country struct {
	Code string `gorm:"primaryKey"`
	Name string
}

type Setting struct {
	ID        uint   `gorm:"primaryKey"`
	Name      string `gorm:"uniqueIndex:settings_name"`
	Value     string
	CreatedAt time.Time
	UpdatedAt time.Time
	DeletedAt gorm.DeletedAt `gorm:"index"`
}

type Thing struct {
	ID int64          `gorm:"primaryKey;autoIncrement:false"`
	N  *string        `gorm:"type:numeric"`
	U  *string        `gorm:"type:uuid"`
	JB map[string]any `gorm:"type:jsonb;serializer:json"`
	TZ *time.Time
	B  []byte
	TA *string `gorm:"type:text[]"`
	T  *string
}

func openGorm(dsn string) (*gorm.DB, error) {
	return gorm.Open(postgres.Open(dsn), &gorm.Config{Logger: logger.Discard, TranslateError: false})
}

func runGorm() {
	var db *gorm.DB
	check("connect-tls", func(ctx context.Context) (err error) {
		db, err = openGorm(dsn(true, password()))
		return err
	})
	if db == nil {
		return
	}
	check("connect-plain", func(ctx context.Context) error { _, err := openGorm(dsn(false, password())); return err })
	check("wrong-password", func(ctx context.Context) error {
		_, err := openGorm(dsn(true, "wrong"))
		return wantState(err, "28P01")
	})
	models := []any{&Country{}, &Customer{}, &Order{}, &Setting{}, &Thing{}}
	check("migrate", func(ctx context.Context) error {
		if err := db.WithContext(ctx).AutoMigrate(models...); err != nil {
			return err
		}
		// Again: now it reads the catalog and finds nothing to change.
		return errors.Join(db.WithContext(ctx).AutoMigrate(models...), equal("has index", db.Migrator().HasIndex(&Setting{}, "settings_name"), true))
	})
	do := func(name string, f func(*gorm.DB) error) {
		check(name, func(ctx context.Context) error { return f(db.WithContext(ctx)) })
	}
	do("crud", gormCRUD)
	do("returning", gormReturning)
	do("transaction", gormTransaction)
	do("savepoint", gormSavepoint)
	do("prepared", gormPrepared)
	do("unique", func(db *gorm.DB) error {
		first := wantUnique(db.Create(&Customer{ID: 1, Name: "x"}).Error, "customers_pkey")
		return errors.Join(first, wantUnique(db.Create(&Setting{Name: "tx"}).Error, "settings_name"))
	})
	do("failed-block", func(db *gorm.DB) error {
		var second error
		first := db.Transaction(func(tx *gorm.DB) error {
			first := tx.Exec("SELECT 1 / (id - 1) FROM customers WHERE id = ?", 1).Error
			second = tx.Create(&Customer{ID: 900, Name: "x"}).Error
			return first
		})
		return errors.Join(wantState(first, "22012"), wantState(second, "25P02"), gormCount(db, 0, &Customer{}, "id = 900"))
	})
	gormTypes(do)
	none("copy", "notify")
	do("batch", func(db *gorm.DB) error {
		var many []Customer
		for id := int64(2001); id <= 2500; id++ {
			many = append(many, Customer{ID: id, Name: "many"})
		}
		return errors.Join(db.CreateInBatches(many, 100).Error, gormCount(db, 500, &Customer{}, "name = ?", "many"))
	})
	do("cursor", func(db *gorm.DB) error {
		rows, err := db.Model(&Customer{}).Where("name = ?", "many").Rows()
		if err != nil {
			return err
		}
		defer rows.Close()
		n := 0
		for rows.Next() {
			var c Customer
			if err := db.ScanRows(rows, &c); err != nil {
				return err
			}
			n++
		}
		return errors.Join(rows.Err(), equal("rows", n, 500))
	})
	do("cancel", func(db *gorm.DB) error {
		ctx, cancel := context.WithTimeout(context.Background(), 300*time.Millisecond)
		defer cancel()
		err := db.WithContext(ctx).Exec("SELECT pg_sleep(20) FROM customers WHERE id = 1").Error
		if !errors.Is(err, context.DeadlineExceeded) {
			return wantState(err, "57014")
		}
		return gormCount(db, 1, &Customer{}, "id = 1")
	})
	do("timeout", func(db *gorm.DB) error {
		err := db.Transaction(func(tx *gorm.DB) error {
			if err := tx.Exec("SET LOCAL statement_timeout = '200ms'").Error; err != nil {
				return err
			}
			return tx.Exec("SELECT pg_sleep(20) FROM customers WHERE id = 2").Error
		})
		return wantState(err, "57014")
	})
	do("pool", func(db *gorm.DB) error {
		errs := make([]error, 24)
		var wg sync.WaitGroup
		for i := range errs {
			wg.Go(func() {
				errs[i] = db.Transaction(func(tx *gorm.DB) error {
					c := Customer{ID: int64(700 + i), Name: "p"}
					return errors.Join(tx.Create(&c).Error, tx.Model(&c).Update("name", "pooled").Error)
				})
			})
		}
		wg.Wait()
		return errors.Join(errors.Join(errs...), gormCount(db, 24, &Customer{}, "name = 'pooled'"))
	})
}

func gormCount(db *gorm.DB, want int64, model any, where string, args ...any) error {
	var n int64
	err := db.Model(model).Where(where, args...).Count(&n).Error
	return errors.Join(err, equal("rows where "+where, n, want))
}

func gormCRUD(db *gorm.DB) error {
	countries := []Country{{"CH", "Switzerland"}, {"IS", "Iceland"}}
	errs := []error{db.Create(&countries).Error}
	for id := int64(1); id <= 8; id++ {
		c := Customer{ID: id, Name: fmt.Sprintf("c%d", id), Country: "CH", Orders: []Order{{ID: id * 10, Total: "12.50"}, {ID: id*10 + 1, Total: "7.00"}}}
		errs = append(errs, db.Create(&c).Error)
	}
	var c Customer
	errs = append(errs, db.Preload("Orders").First(&c, 4).Error, equal("orders of 4", len(c.Orders), 2),
		db.Create(&Setting{Name: "a", Value: "1"}).Error, gormCount(db, 8, &Customer{}, "country = 'CH'"))
	res := db.Model(&Customer{}).Where("id = ?", 3).Update("name", "renamed")
	errs = append(errs, res.Error, equal("updated", res.RowsAffected, 1))
	var all []Customer
	errs = append(errs, db.Find(&all, []int64{1, 2, 3, 4, 5}).Error, equal("found", len(all), 5))
	errs = append(errs, db.Clauses(clause.OnConflict{UpdateAll: true}).Create(&Customer{ID: 5, Name: "upserted"}).Error,
		gormCount(db, 1, &Customer{}, "id = 5 AND name = 'upserted'"))
	s := Setting{}
	errs = append(errs, db.Where("name = ?", "a").First(&s).Error, db.Model(&s).Update("value", "2").Error, db.Delete(&s).Error,
		gormCount(db, 0, &Setting{}, "name = 'a'"), gormCount(db.Unscoped(), 1, &Setting{}, "name = 'a'"),
		db.Where("customer_id = ?", 8).Delete(&Order{}).Error, db.Delete(&Customer{ID: 8}).Error, gormCount(db, 7, &Customer{}, "1 = 1"),
		db.Delete(&Country{Code: "CH"}).Error, db.Save(&Country{Code: "IS", Name: "Ísland"}).Error)
	return errors.Join(errs...)
}

func gormReturning(db *gorm.DB) error {
	s := Setting{Name: "returned"}
	if err := db.Create(&s).Error; err != nil {
		return err
	}
	var gone []Customer
	err := errors.Join(db.Create(&Customer{ID: 102, Name: "gone"}).Error, db.Clauses(clause.Returning{}).Where("id = 102").Delete(&gone).Error)
	if err != nil {
		return err
	}
	return errors.Join(equal("an id was given", s.ID > 0, true), equal("deleted", len(gone), 1), equal("name", gone[0].Name, "gone"))
}

func gormTransaction(db *gorm.DB) error {
	fill := func(tx *gorm.DB) error {
		for id := int64(201); id <= 206; id++ {
			if err := tx.Create(&Customer{ID: id, Name: "t"}).Error; err != nil {
				return err
			}
		}
		return tx.Create(&Setting{Name: "tx"}).Error
	}
	stop := errors.New("stop")
	err := db.Transaction(func(tx *gorm.DB) error { return errors.Join(fill(tx), stop) })
	if !errors.Is(err, stop) {
		return err
	}
	return errors.Join(gormCount(db, 0, &Customer{}, "name = 't'"), db.Transaction(fill), gormCount(db, 6, &Customer{}, "name = 't'"))
}

func gormSavepoint(db *gorm.DB) error {
	err := db.Transaction(func(tx *gorm.DB) error {
		if err := tx.Create(&Customer{ID: 301, Name: "s"}).Error; err != nil {
			return err
		}
		inner := tx.Transaction(func(tx *gorm.DB) error {
			return tx.Create([]Customer{{ID: 302, Name: "s"}, {ID: 301, Name: "s"}}).Error
		})
		return errors.Join(wantState(inner, "23505"), tx.Create(&Customer{ID: 303, Name: "s"}).Error)
	})
	return errors.Join(err, gormCount(db, 2, &Customer{}, "name = 's'"))
}

func gormPrepared(db *gorm.DB) error {
	p := db.Session(&gorm.Session{PrepareStmt: true})
	for range 3 {
		err := p.Transaction(func(tx *gorm.DB) error {
			for id := 1; id <= 7; id++ {
				var c Customer
				if err := tx.First(&c, "id = ?", id).Error; err != nil {
					return err
				}
			}
			return nil
		})
		if err != nil {
			return err
		}
	}
	return nil
}

// gormTypes are the checks of values.
func gormTypes(do func(string, func(*gorm.DB) error)) {
	text := func(s string) *string { return &s }
	roundTrip := func(id int64, in Thing, same func(in, out Thing) error) func(*gorm.DB) error {
		return func(db *gorm.DB) error {
			in.ID = id
			var out Thing
			if err := errors.Join(db.Create(&in).Error, db.First(&out, id).Error); err != nil {
				return err
			}
			return same(in, out)
		}
	}
	at := time.Date(2024, 2, 29, 23, 59, 58, 123456000, time.UTC)
	do("arrays", roundTrip(1, Thing{TA: text(`{a,"b\"c","{d,e}",""}`)}, func(in, out Thing) error { return equal("text[]", *out.TA, *in.TA) }))
	do("json", roundTrip(2, Thing{JB: map[string]any{"a": 1.5, "b": []any{"x", nil, true}}}, func(in, out Thing) error { return equal("jsonb", out.JB, in.JB) }))
	do("uuid", roundTrip(3, Thing{U: text("8c5a3ef0-8e4c-4d0a-9a40-0c8bb0b1d6f1")}, func(in, out Thing) error { return equal("uuid", *out.U, *in.U) }))
	do("numeric", roundTrip(4, Thing{N: text("-12345678901234567890.123456789")}, func(in, out Thing) error { return equal("numeric", *out.N, *in.N) }))
	do("timestamps", roundTrip(5, Thing{TZ: &at}, func(in, out Thing) error { return equal("timestamptz", out.TZ.UTC(), at) }))
	do("bytea", roundTrip(6, Thing{B: []byte{0, 1, 255, '\\', 10}}, func(in, out Thing) error { return equal("bytea", out.B, in.B) }))
	do("nulls", roundTrip(7, Thing{}, func(_, out Thing) error {
		return equal("all null", out.T == nil && out.N == nil && out.TZ == nil && out.B == nil, true)
	}))
	big := Thing{T: text(strings.Repeat("äx\\'", large/5)), B: bytes.Repeat([]byte{0, 255, 7, 9}, large/4)}
	do("large", roundTrip(8, big, func(in, out Thing) error {
		return equal("both", *in.T == *out.T && bytes.Equal(in.B, out.B), true)
	}))
}
