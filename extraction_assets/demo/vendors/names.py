"""Invented companies, people, addresses and goods in six languages. Nothing here is a real company."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal


def _words(text: str) -> tuple[str, ...]:
    return tuple(text.split())


_STARTS = {
    "en": _words("Ash Brook Clay Dun East Fair Glen Hart Kings Lang Mill North Oak Pem Red Stan Thorn Wells"),
    "de": _words("Brand Eich Fried Grün Hof Kess Köhl Lind Mühl Nied Reich Röth Schön Stein Thal Vogt Wald Zieg"),
    "fr": _words("Beau Bois Cham Clair Dela Fon Gran Haut Lamb Mar Mont Péri Roch Saint Tour Val Ver Vill"),
    "es": _words("Alba Bel Cas Cor Esp Fuen Gar Her Mala Men Mont Olm Per Quin Sal Tor Val Zar"),
    "it": _words("Alber Bel Cas Col Fer Gal Lom Mar Mon Nico Pal Rinal Ros San Tar Ver Vin Zan"),
    "nl": _words("Brou De Dijk Groen Haver Heer Jans Koop Linden Molen Oost Rijn Schip Veld Vis Water West Zand"),
}
_ENDS = {
    "en": _words("bury combe dale field ford gate ham ley mere ridge side ton wick wood worth"),
    "de": _words("acher bach berger dorf elmann er feld hardt hauser inger ler mann ner stedt"),
    "fr": _words("ard bert champ court dier eau font geon ier lieu mont nier sac teau ville"),
    "es": _words("ado ales añas ares ador edo eras ero illa ina izo ón oso uelo uña"),
    "it": _words("acci andi anti elli eri etti iani ini occhi oni otti ucci uoli"),
    "nl": _words("berg dam donk hof horst huis laar meer man stra veen ver weide wijk"),
}
_TRADES = {
    "en": _words("Supplies Tools Trading Services Foods Paper Systems Hardware Textiles Print"),
    "de": _words("Technik Werkzeuge Handel Logistik Druck Bau Systeme Büro Möbel Papier"),
    "fr": _words("Services Outillage Négoce Bâtiment Textile Papeterie Matériel Énergie"),
    "es": _words("Suministros Servicios Comercial Técnica Papelería Muebles Energía Textil"),
    "it": _words("Forniture Servizi Tessuti Carta Impianti Utensili Arredi Energia"),
    "nl": _words("Techniek Handel Bouw Diensten Papier Meubels Gereedschap Logistiek"),
}
_SHOPS = {
    "en": _words("Café Market Bakery Books Deli Garden"),
    "de": _words("Bäckerei Markt Café Drogerie Gärtnerei Metzgerei"),
    "fr": _words("Épicerie Boulangerie Café Librairie Marché Fromagerie"),
    "es": _words("Panadería Mercado Cafetería Librería Frutería"),
    "it": _words("Panetteria Mercato Caffè Libreria Drogheria"),
    "nl": _words("Bakkerij Markt Café Boekhandel Slagerij"),
}
_FORMS = {
    "en": ("Ltd", "Inc.", "LLC", "& Co."),
    "de": ("GmbH", "AG", "KG", "e.K."),
    "fr": ("SARL", "SA", "SAS", "& Cie"),
    "es": ("S.L.", "S.A.", "e Hijos"),
    "it": ("S.r.l.", "S.p.A.", "& Figli"),
    "nl": ("B.V.", "N.V.", "VOF"),
}
_STREETS = {
    "en": ("{n} {name} Street", "{n} {name} Road", "{n} {name} Lane"),
    "de": ("{name}straße {n}", "{name}weg {n}", "Am {name} {n}"),
    "fr": ("{n} rue {name}", "{n} avenue {name}", "{n} quai {name}"),
    "es": ("Calle {name} {n}", "Avda. {name} {n}", "Plaza {name} {n}"),
    "it": ("Via {name} {n}", "Corso {name} {n}", "Piazza {name} {n}"),
    "nl": ("{name}straat {n}", "{name}laan {n}", "{name}kade {n}"),
}
_CITIES = {
    "en": _words("Bristol Leeds York Dover Exeter Derby Norwich Preston"),
    "de": _words("Köln Ulm Jena Bonn Mainz Kassel Lübeck Fürth"),
    "fr": _words("Lyon Nîmes Angers Orléans Brest Béziers"),
    "es": _words("Málaga León Cádiz Bilbao Girona Lugo Almería Murcia"),
    "it": _words("Torino Parma Lecce Lucca Forlì Bari Trento Pavia"),
    "nl": _words("Utrecht Breda Delft Gouda Gent Zwolle Leiden Arnhem"),
}
_AMERICAN_CITIES = ("Salem, OR", "Dover, DE", "Mesa, AZ", "Akron, OH", "Waco, TX", "Ogden, UT", "Fargo, ND", "Tampa, FL")
_SWISS_CITIES = {
    "de": ("Zürich", "Bern", "Basel", "Chur"),
    "fr": ("Genève", "Sion", "Vevey", "Nyon"),
    "it": ("Lugano", "Chiasso", "Locarno"),
}
_FIRST_NAMES = {
    "en": _words("Alice Ben Clara David Emma Frank Grace Henry"),
    "de": _words("Jürgen Anna Björn Clara Heike Lukas Sören Ute"),
    "fr": _words("André Chloé Hélène Luc Noémie René Zoé Jules"),
    "es": _words("Ana Begoña Íñigo José Lucía Raúl Sofía Tomás"),
    "it": _words("Aldo Chiara Elena Luca Nicolò Paola Sara Ugo"),
    "nl": _words("Anouk Bram Daan Eva Joost Lotte Noor Thijs"),
}
_GOODS = {
    "en": (
        "Hinge,Steel bolt,Desk lamp,Paper roll,Paint brush,Door handle,Garden hose,Filter set,Cable drum,"
        "Work gloves,Wood screw,Label tape,Office chair,Toner black,Ring binder,Shelf board,Hand saw,Copper pipe"
    ),
    "de": (
        "Scharnier,Stahlschraube,Tischlampe,Papierrolle,Pinsel,Türgriff,Schlauch,Filtersatz,Kabelrolle,"
        "Handschuhe,Dübel,Klebeband,Bürostuhl,Toner schwarz,Ordner,Regalbrett,Säge,Kupferrohr"
    ),
    "fr": (
        "Charnière,Vis acier,Lampe bureau,Rouleau papier,Pinceau,Poignée,Tuyau,Filtre à air,Câble,"
        "Gants cuir,Cheville,Ruban,Chaise,Encre noire,Classeur,Étagère,Scie,Tube cuivre"
    ),
    "es": (
        "Bisagra,Tornillo acero,Lámpara,Rollo papel,Pincel,Manilla,Manguera,Filtro aire,Cable,"
        "Guantes piel,Taco nailon,Cinta,Silla oficina,Tóner negro,Archivador,Estante,Sierra,Tubo cobre"
    ),
    "it": (
        "Cerniera,Vite acciaio,Lampada,Rotolo carta,Pennello,Maniglia,Tubo acqua,Filtro aria,Cavo,"
        "Guanti pelle,Tassello,Nastro,Sedia ufficio,Toner nero,Raccoglitore,Scaffale,Sega,Tubo rame"
    ),
    "nl": (
        "Scharnier,Stalen bout,Bureaulamp,Papierrol,Kwast,Deurklink,Tuinslang,Filterset,Kabelrol,"
        "Handschoen,Plug,Plakband,Bureaustoel,Toner zwart,Ordner,Plank,Handzaag,Koperbuis"
    ),
}
_SERVICES = {
    "en": "Consulting,Site visit,Assembly,Training,Repair work,Cleaning,Translation,Design work,Data entry,Gardening,Painting,Survey",
    "de": "Beratung,Montage,Schulung,Reparatur,Reinigung,Übersetzung,Gestaltung,Anfahrt,Gartenpflege,Wartung,Aufmaß,Prüfung",
    "fr": "Conseil,Montage,Formation,Réparation,Nettoyage,Traduction,Création,Déplacement,Entretien,Peinture,Contrôle,Expertise",
    "es": "Asesoría,Montaje,Formación,Reparación,Limpieza,Traducción,Diseño,Viaje,Jardinería,Pintura,Revisión,Medición",
    "it": "Consulenza,Montaggio,Formazione,Riparazione,Pulizia,Traduzione,Progetto,Trasferta,Giardinaggio,Verniciatura,Collaudo,Perizia",
    "nl": "Advies,Montage,Training,Reparatie,Schoonmaak,Vertaling,Ontwerp,Voorrijden,Tuinwerk,Schilderwerk,Keuring,Opmeting",
}
_SPECS = ("M8", "M12", "A4", "XL", "40 mm", "120 cm", "2 m", "5 kg", "250 ml", "T-20", "No. 7", "Pro", "Plus", "V2", "30 W", "B5")
_SHOP_GOODS = {
    "en": ("Coffee,Green tea,Rye bread,Apple pie,Tomatoes,Butter,Orange juice,Notebook,Soap bar,Tulips,Cheddar,Scone,Pencil,Honey jar"),
    "de": ("Kaffee,Früchtetee,Roggenbrot,Apfelkuchen,Tomaten,Butter,Orangensaft,Notizbuch,Seife,Tulpen,Käse,Brötchen,Bleistift,Honig"),
    "fr": ("Café crème,Thé vert,Pain de seigle,Tarte pomme,Tomates,Beurre,Jus d'orange,Carnet,Savon,Tulipes,Fromage,Croissant,Crayon,Miel"),
    "es": (
        "Café solo,Té verde,Pan centeno,Tarta manzana,Tomates,Mantequilla,Zumo naranja,Cuaderno,Jabón,Claveles,Queso,Magdalena,Lápiz,Miel"
    ),
    "it": (
        "Caffè,Tè verde,Pane di segale,Torta di mele,Pomodori,Burro,Succo arancia,Quaderno,Sapone,Tulipani,Pecorino,Cornetto,Matita,Miele"
    ),
    "nl": ("Koffie,Groene thee,Roggebrood,Appeltaart,Tomaten,Boter,Jus d'orange,Schrift,Zeep,Tulpen,Kaas,Croissant,Potlood,Honing"),
}
_PAID_BY = {
    "en": ("Cash", "Visa", "Debit card"),
    "de": ("Bar", "EC-Karte", "Visa"),
    "fr": ("Espèces", "Carte", "Visa"),
    "es": ("Efectivo", "Tarjeta", "Visa"),
    "it": ("Contanti", "Bancomat", "Visa"),
    "nl": ("Contant", "Pinpas", "Visa"),
}
_THANKS = {
    "en": ("Thank you for your business", "We appreciate your order", "Have a nice day"),
    "de": ("Vielen Dank für Ihren Einkauf", "Wir danken für das Vertrauen", "Schönen Tag noch"),
    "fr": ("Merci de votre confiance", "Merci et à bientôt", "Bonne journée"),
    "es": ("Gracias por su compra", "Gracias por su confianza", "Hasta pronto"),
    "it": ("Grazie e arrivederci", "Grazie per la fiducia", "Buona giornata"),
    "nl": ("Bedankt en tot ziens", "Dank voor uw vertrouwen", "Fijne dag verder"),
}


@dataclass(frozen=True)
class Party:
    """A company with an address."""

    name: str
    street: str
    city: str
    """postcode and town as printed"""


def invent_surname(chance: random.Random, language: str) -> str:
    return chance.choice(_STARTS[language]) + chance.choice(_ENDS[language])


def invent_person(chance: random.Random, language: str) -> str:
    return f"{chance.choice(_FIRST_NAMES[language])} {invent_surname(chance, language)}"


def invent_company(chance: random.Random, language: str) -> str:
    """E.g. "Lindner Technik GmbH", "Pemford & Thornley Ltd"."""
    surname, form = invent_surname(chance, language), chance.choice(_FORMS[language])
    kind = chance.random()
    if kind < 0.55:
        return f"{surname} {chance.choice(_TRADES[language])} {form}"
    if kind < 0.75 and "&" not in form and " " not in form:
        return f"{surname} & {invent_surname(chance, language)} {form}"
    return f"{surname} {form}"


def invent_shop(chance: random.Random, language: str) -> str:
    """E.g. "Bäckerei Lindner", "Ashford Deli"."""
    surname, trade = invent_surname(chance, language), chance.choice(_SHOPS[language])
    return f"{surname} {trade}" if language == "en" else f"{trade} {surname}"


def invent_party(chance: random.Random, language: str, name: str, currency: str) -> Party:
    """A company with an address in a country that has this language and currency."""
    street = chance.choice(_STREETS[language]).format(name=invent_surname(chance, language), n=chance.randint(1, 180))
    if currency == "USD":
        return Party(name, street, f"{chance.choice(_AMERICAN_CITIES)} {chance.randint(10000, 98999)}")
    if currency == "CHF":
        return Party(name, street, f"{chance.randint(1000, 9399)} {chance.choice(_SWISS_CITIES[language])}")
    town = chance.choice(_CITIES[language])
    if language == "en":
        code = f"{town[:2].upper()}{chance.randint(1, 19)} {chance.randint(1, 9)}{chance.choice('ABDEFGHJ')}{chance.choice('LNPQRSTU')}"
        return Party(name, street, f"{town} {code}")
    if language == "nl":
        return Party(name, street, f"{chance.randint(1000, 9999)} {chance.choice('ABCDEFGH')}{chance.choice('KLMNPRST')} {town}")
    return Party(name, street, f"{chance.randint(10000, 97999)} {town}")


def invent_goods(chance: random.Random, language: str, count: int, kind: Literal["goods", "shop", "services"]) -> tuple[str, ...]:
    """Distinct names, `count` at most: "Steel bolt M8" of a supplier, "Rye bread" of a shop, "Repair work" by the hour."""
    nouns = {"goods": _GOODS, "shop": _SHOP_GOODS, "services": _SERVICES}[kind][language].split(",")
    drawn = chance.sample(nouns, min(count, len(nouns)))
    return tuple(f"{noun} {chance.choice(_SPECS)}" if kind == "goods" else noun for noun in drawn)


def ways_to_pay(language: str) -> tuple[str, ...]:
    return _PAID_BY[language]


def invent_thanks(chance: random.Random, language: str) -> str:
    return chance.choice(_THANKS[language])
