"""The text that the tiny tokenizer is trained on. A change here changes every token: bases already trained would not load it.

One token a character, and one for what JSON puts between two values. A small model learns to read letter by letter; with pieces of two
to four letters it has to learn each piece's look at each place of a patch, and took many times as long.
"""

from __future__ import annotations


def listed(text: str) -> tuple[str, ...]:
    """Words between white space: long lists stay readable."""
    return tuple(text.split())


WORDS = listed(
    """
Anderson Bakery and Sons Limited Northern Lights Trading Company Harbour Street Riverside Market Garden Tools Coffee beans roasted
Water bottle Paper sheets Printing services Transport charge Maintenance contract Office chair Desk lamp Cable Battery Filter Engine
Bergmann Schneider Hoffmann Krause Winter Sommer Gesellschaft Werkzeug Schrauben Lieferung Versand Beratung Kugellager Dichtung Straße
Grün Öl Über Köln München Düsseldorf Zürich Österreich Größe Menge Stück Preis Betrag Summe Netto Brutto Datum Nummer Seite Kunde
Société Générale Bordeaux Marseille Château Café Crème Fenêtre Peinture Livraison Quantité Désignation Montant Numéro Adresse Françoise
Señor Muñoz García Compañía Número Fecha Importe Cantidad Descripción Artículo Teléfono Dirección Córdoba Málaga Peña Ibáñez
Rossi Bianchi Fratelli Ferramenta Quantità Importo Descrizione Prezzo Numero Città Perù Così Milano Torino Palermo Acqua Olio
São Paulo João Conceição Coração Preço Descrição Quantidade Endereço Avó Português Lisboa Porto Braga Évora
Ångström Malmö Göteborg Jönköping Ærø Søren København Østergaard Bergen Tromsø Oslo Helsinki Jyväskylä Sähkö Työ
Łódź Kraków Gdańsk Wrocław Ilość Cena Kwota Zażółć Nowak Wiśniewski Praha Dvořák Černý Novák Množství Částka Budapest Győr Szabó
the of and for with from per each set box pack kilo litre metre hour day small large white black blue green red steel wood glass
GmbH AG Ltd Inc LLC SA SARL SpA BV NV AB AS Oy KG Co EUR USD GBP CHF SEK NOK DKK PLN CZK HUF
Hammer Pliers Screwdriver Bracket Washer Gasket Bearing Valve Pump Hose Clamp Drill Saw Ladder Rope Chain Wheel Tyre Brake Mirror
Printer Toner Monitor Keyboard Laptop Charger Adapter Router Switch Server License Software Support Training Workshop Consulting
Envelope Notebook Pencil Marker Folder Binder Stapler Calendar Poster Banner Catalogue Brochure Packaging Carton Pallet Freight
Chocolate Butter Cheese Yoghurt Bread Flour Sugar Honey Pepper Tomato Potato Lemon Orange Apple Grape Juice Vinegar Mustard
Margaret Elizabeth William Charlotte Benjamin Katherine Jonathan Victoria Frederick Dorothy Samuel Theresa Gabriel Monica Oscar
Sebastian Maximilian Johanna Friedrich Wolfgang Ursula Heinrich Katharina Matthias Stefanie Jürgen Käthe Björn Ingrid Sven Astrid
Giuseppe Francesca Alessandro Valentina Jacques Véronique Étienne Geneviève Ignacio Guadalupe Joaquín Beatriz Gonçalo Luísa
Amsterdam Rotterdam Antwerpen Brussel Utrecht Groningen Birmingham Manchester Edinburgh Glasgow Liverpool Bristol Cambridge Oxford
Industrial Chemical Electrical Mechanical Pharmaceutical Agricultural Technical Scientific International National Regional Central
Brothers Partners Associates Holdings Enterprises Solutions Systems Logistics Products Supplies Materials Equipment Instruments
Kitchen Bathroom Bedroom Garage Window Carpet Curtain Pillow Blanket Towel Basket Bucket Brush Broom Shovel Hedge Flower Plant
ART REF INV ORD POS QTY VAT TAX TOTAL NET SUM DATE PAGE ABC DEF KLM RST XYZ AX BK CT DV EF GH LM NP QR ST UV WZ
"""
)


ACCENTED = "äöüßéèêëàâáãåæøœçñíîïóôõòúùûýžščřćłńśźżěůÄÖÜÉÈÀÁÅÆØÇÑÓÚŽŠČŘŁŚŻ"
SYMBOLS = "€£$¥%&§°•–—+=*/\\|#@!?()[]{}<>:;,.'\"_-~^`²³½×±µ«»„“”‘’…·¿¡№"
_JOINTS = listed(
    """
{" ":" "," "} ":" ","  ":[{" "},{" "}] "}]} "}]," ":[] ":[]} ":[]," ": ," ":["  "]," "]} "} ":"", ":"" "" [ ], ]
"""
)
"""What stands between two values of a compact JSON answer: one token each, so that an answer is its letters and little else."""


def sample() -> list[str]:
    """Lines of text to train the tokenizer on; always the same."""
    composed = [character for character in ACCENTED + SYMBOLS if not character.isascii()]
    return [*(joint for joint in _JOINTS for _ in range(5)), *composed]
